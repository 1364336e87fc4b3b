/* What the parts of the program `calls` share. */
#pragma once

/* Prints the result of a call that does not go through libc: minus the error number. */
void raw(const char *what, long result);

/* Detaches the link that is pinned there, and leaves the pin. */
void detach(const char *pin);

/* Sockets of several families, made through io_uring. */
void rings(void);

//! Against the kernel that runs the tests; no privileges are needed to list one's own namespace.

use super::message::{answers, buffer};
use super::*;

#[test]
fn garbage_from_the_kernel_is_an_error_and_never_read_past_its_end() {
    for bytes in [&[0_u8; 15][..], &[0xff; 64], &[16, 0, 0, 0, 20, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0]] {
        assert!(answers(bytes).any(|answer| answer.is_err()), "{bytes:?}");
    }
    assert!(buffer().len() > 32 << 10);
}

#[test]
fn only_what_can_still_carry_a_byte_counts_as_connected() {
    for (state, tcp, udp) in
        [(ESTABLISHED, true, true), (LISTEN, false, false), (CLOSE, false, false)]
    {
        assert_eq!(states(Which::Connected, Protocol::TCP) & 1 << state != 0, tcp, "{state}");
        assert_eq!(states(Which::Connected, Protocol::UDP) & 1 << state != 0, udp, "{state}");
    }
    for state in 2..=11 {
        let carries = ![TIME_WAIT, CLOSE, LISTEN].contains(&state);
        assert_eq!(states(Which::Connected, Protocol::TCP) & 1 << state != 0, carries, "{state}");
    }
}

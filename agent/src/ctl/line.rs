//! Reading one line of bounded length, for the daemon (async) and the client (blocking) alike.

use std::io::{self, BufRead};

use tokio::io::{AsyncBufRead, AsyncBufReadExt};

/// Why there is no line.
#[derive(Debug, thiserror::Error)]
pub(super) enum LineError {
    #[error("the line is longer than {0} bytes")]
    TooLong(usize),
    #[error("the line ended without a newline")]
    Cut,
    #[error("reading failed")]
    Io(#[from] io::Error),
}

/// The next line without its newline, `None` at the end; never keeps more than `max` bytes.
pub(super) async fn read_line<R: AsyncBufRead + Unpin>(
    reader: &mut R,
    max: usize,
) -> Result<Option<Vec<u8>>, LineError> {
    let mut line = Vec::new();
    loop {
        let (used, done) = take(reader.fill_buf().await?, &mut line, max)?;
        reader.consume(used);
        if let Some(done) = done {
            return Ok(done.then_some(line));
        }
    }
}

/// [`read_line`], blocking.
pub(super) fn read_line_blocking<R: BufRead>(
    reader: &mut R,
    max: usize,
) -> Result<Option<Vec<u8>>, LineError> {
    let mut line = Vec::new();
    loop {
        let (used, done) = take(reader.fill_buf()?, &mut line, max)?;
        reader.consume(used);
        if let Some(done) = done {
            return Ok(done.then_some(line));
        }
    }
}

/// Moves bytes up to a newline from `buffer` to `line`. Answers how many were used, and, when that
/// settles it, whether there is a line.
fn take(buffer: &[u8], line: &mut Vec<u8>, max: usize) -> Result<(usize, Option<bool>), LineError> {
    if buffer.is_empty() {
        return if line.is_empty() { Ok((0, Some(false))) } else { Err(LineError::Cut) };
    }
    let end = buffer.iter().position(|byte| *byte == b'\n');
    let part = buffer.get(..end.unwrap_or(buffer.len())).unwrap_or_default();
    if line.len() + part.len() + 1 > max {
        return Err(LineError::TooLong(max));
    }
    line.extend_from_slice(part);
    Ok(match end {
        Some(end) => (end + 1, Some(true)),
        None => (part.len(), None),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(mut bytes: &[u8], max: usize) -> Vec<Result<Option<Vec<u8>>, String>> {
        (0..3).map(|_| read_line_blocking(&mut bytes, max).map_err(|e| e.to_string())).collect()
    }

    #[test]
    fn lines_come_one_by_one_and_then_the_end() {
        let got = lines(b"ab\ncd\n", 64);
        assert_eq!(got, [Ok(Some(b"ab".to_vec())), Ok(Some(b"cd".to_vec())), Ok(None)]);
    }

    #[test]
    fn a_line_of_exactly_the_bound_passes_and_one_byte_more_does_not() {
        assert_eq!(read_line_blocking(&mut &b"abc\n"[..], 4).unwrap(), Some(b"abc".to_vec()));
        assert!(matches!(read_line_blocking(&mut &b"abcd\n"[..], 4), Err(LineError::TooLong(4))));
    }

    #[test]
    fn an_endless_line_is_refused_without_being_kept() {
        let mut endless = io::BufReader::new(io::repeat(b'x'));
        assert!(matches!(read_line_blocking(&mut endless, 65_536), Err(LineError::TooLong(_))));
    }

    #[test]
    fn a_line_cut_off_by_a_hang_up_is_not_taken_for_a_whole_one() {
        assert!(matches!(read_line_blocking(&mut &b"{\"v\""[..], 64), Err(LineError::Cut)));
    }
}

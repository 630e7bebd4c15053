//! Where the head of a request ends among the bytes of a connection. Knows no more of HTTP than that an empty line ends
//! it, and that empty lines before it mean nothing (RFC 9112, sections 2.1 and 2.2).

/// Looks for the end of one head, through as many pieces as it comes in.
#[derive(Debug, Default)]
pub(super) struct HeadEnd {
    /// Something of it has come.
    begun: bool,
    /// Nothing of the present line has come yet.
    line_is_empty: bool,
}

impl HeadEnd {
    /// How many of these bytes are the head's, where it ends in them.
    pub(super) fn find(&mut self, bytes: &[u8]) -> Option<usize> {
        for (at, byte) in bytes.iter().enumerate() {
            match byte {
                b'\n' if self.begun && self.line_is_empty => return Some(at.saturating_add(1)),
                b'\n' => self.line_is_empty = true,
                b'\r' => {}
                _ => {
                    self.begun = true;
                    self.line_is_empty = false;
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_ends_at_its_empty_line_in_whatever_pieces_it_comes() {
        for (head, behind) in [
            ("GET / HTTP/1.1\r\nhost: a\r\n\r\n", "GET /next"),
            ("\r\n\r\nGET / HTTP/1.1\r\n\r\n", "\r\n"),
            ("GET / HTTP/1.1\nhost: a\n\n", "body"),
            ("GET / HTTP/1.1\r\nhost: a\n\r\n", ""),
        ] {
            let all = format!("{head}{behind}");
            for size in 1..=all.len() {
                let (mut end, mut passed) = (HeadEnd::default(), 0);
                let found = all.as_bytes().chunks(size).find_map(|piece| {
                    let found = end.find(piece).map(|count| passed + count);
                    passed += piece.len();
                    found
                });
                assert_eq!(found, Some(head.len()), "{all:?} by {size}");
            }
        }
    }

    #[test]
    fn what_has_no_empty_line_has_no_end() {
        let mut end = HeadEnd::default();
        for piece in ["\r\n\r\n\r\n", "GET / HTTP/1.1\r\n", "host: a\r\n", "x"] {
            assert_eq!(end.find(piece.as_bytes()), None);
        }
    }
}

//! How the play is told: one scene a step, with who did what, what was sent and what came back.
//! Colours and bold type on a terminal only.

use std::io::{self, IsTerminal, Write};

/// How a line of a scene looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// As it is.
    Plain,
    /// What matters.
    Strong,
    /// What may be skipped.
    Faint,
    /// It was allowed.
    Good,
    /// It was refused, as it should be.
    Refused,
    /// It went wrong.
    Bad,
}

impl Tone {
    const fn codes(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Strong => "1",
            Self::Faint => "2",
            Self::Good => "32",
            Self::Refused => "33",
            Self::Bad => "31;1",
        }
    }
}

/// Tells the play, scene by scene.
pub struct Teller<W> {
    out: W,
    colours: bool,
    scenes: usize,
}

impl Teller<io::Stdout> {
    /// Tells it on standard output.
    pub fn on_stdout() -> Self {
        let out = io::stdout();
        let colours = out.is_terminal();
        Self::new(out, colours)
    }
}

impl<W: Write> Teller<W> {
    /// Tells it to `out`.
    pub const fn new(out: W, colours: bool) -> Self {
        Self {
            out,
            colours,
            scenes: 0,
        }
    }

    /// One line.
    pub fn line(&mut self, text: &str, tone: Tone) -> io::Result<()> {
        let codes = tone.codes();
        if self.colours && !codes.is_empty() {
            writeln!(self.out, "\x1b[{codes}m{text}\x1b[0m")
        } else {
            writeln!(self.out, "{text}")
        }
    }

    /// An empty line.
    pub fn gap(&mut self) -> io::Result<()> {
        writeln!(self.out)
    }

    /// A new scene: who does what.
    pub fn scene(&mut self, who: &str, what: &str) -> io::Result<()> {
        self.scenes += 1;
        let number = format!("{:>2}  ", self.scenes);
        self.gap()?;
        self.line(&format!("{number}{who} {what}"), Tone::Strong)
    }

    /// What was sent.
    pub fn sent(&mut self, text: &str) -> io::Result<()> {
        self.line(&format!("    > {text}"), Tone::Faint)?;
        self.out.flush()
    }

    /// What came back.
    pub fn answered(&mut self, text: &str, tone: Tone) -> io::Result<()> {
        self.line(&format!("    < {text}"), tone)
    }

    /// A remark about it.
    pub fn remark(&mut self, text: &str) -> io::Result<()> {
        self.line(&format!("      {text}"), Tone::Plain)
    }

    /// Rows in columns as wide as their widest cell.
    pub fn table(&mut self, head: &[&str], rows: &[Vec<String>]) -> io::Result<()> {
        let width = |column: usize| {
            let cells = rows
                .iter()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count());
            cells
                .chain(head.get(column).map(|cell| cell.chars().count()))
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..head.len()).map(width).collect();
        let row_of = |cells: &mut dyn Iterator<Item = &str>| {
            let padded: Vec<String> = cells
                .zip(&widths)
                .map(|(cell, width)| format!("{cell:<width$}"))
                .collect();
            format!("      {}", padded.join("  ").trim_end())
        };
        let title = row_of(&mut head.iter().copied());
        self.line(&title, Tone::Strong)?;
        for row in rows {
            let text = row_of(&mut row.iter().map(String::as_str));
            let refused = row.iter().any(|cell| cell == "denied");
            self.line(&text, if refused { Tone::Refused } else { Tone::Plain })?;
        }
        Ok(())
    }

    /// Makes sure that everything told so far is seen.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(colours: bool) -> String {
        let mut out = Vec::new();
        let mut teller = Teller::new(&mut out, colours);
        teller.scene("Dr. Lane", "fetches").unwrap();
        teller.answered("200", Tone::Good).unwrap();
        teller
            .table(&["what", "who"], &[vec!["grant-issued".into(), "ehr".into()]])
            .unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn off_a_terminal_there_are_no_escape_codes() {
        assert_eq!(
            told(false),
            "\n 1  Dr. Lane fetches\n    < 200\n      what          who\n      grant-issued  ehr\n"
        );
        assert!(told(true).contains("\x1b[32m"));
    }
}

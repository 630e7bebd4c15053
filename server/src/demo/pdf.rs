//! A real PDF of one page (ISO 32000-1), made here so that the demo hands over something that a viewer opens.

use std::fmt::Write as _;

/// A4 in points.
const PAGE: (u32, u32) = (595, 842);
const LEFT: u32 = 64;
const TOP: u32 = 770;
const LEADING: u32 = 18;

/// A referral letter about the fictional patient Ada, dated `date` (`2026-03-01`).
pub fn referral_letter(date: &str) -> Vec<u8> {
    let heading = "Referring Clinic, Harbour Street 1";
    let dated = format!("{date}    Referral to cardiology");
    document(
        "Referral letter",
        &[
            (16, heading),
            (11, &dated),
            (11, ""),
            (11, "Dear Dr. Lane,"),
            (11, ""),
            (11, "thank you for seeing Ada, born 10 December 1975, who reports"),
            (11, "palpitations on climbing stairs for about six weeks."),
            (11, ""),
            (11, "Resting ECG: sinus rhythm, 72/min, no acute changes."),
            (11, "Blood pressure 138/84 mmHg. Medication: none."),
            (11, ""),
            (11, "We would be grateful for an echocardiogram and your advice."),
            (11, ""),
            (11, "With kind regards,"),
            (11, "Dr. Moss"),
            (11, ""),
            (8, "Ada, Dr. Moss and Dr. Lane are inventions of the demo."),
        ],
    )
}

/// A page with one line of text under the other, each with its size in points.
fn document(title: &str, lines: &[(u32, &str)]) -> Vec<u8> {
    let mut text = format!("BT\n{LEADING} TL\n{LEFT} {TOP} Td\n");
    for (size, line) in lines {
        // Writing to a String can't fail.
        let _infallible = writeln!(text, "/F1 {size} Tf ({}) Tj T*", escaped(line));
    }
    text.push_str("ET\n");
    let (width, height) = PAGE;
    let objects = [
        "<< /Type /Catalog /Pages 2 0 R /Lang (en) >>".to_owned(),
        "<< /Type /Pages /Kids [3 0 R] /Count 1 >>".to_owned(),
        format!(
            "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 {width} {height}] \
             /Resources << /Font << /F1 5 0 R >> >> /Contents 4 0 R >>"
        ),
        format!("<< /Length {} >>\nstream\n{text}endstream", text.len()),
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>".to_owned(),
        format!("<< /Title ({}) /Producer (Handoff demo) >>", escaped(title)),
    ];
    let mut out = String::from("%PDF-1.4\n");
    let mut offsets = Vec::new();
    for (index, object) in objects.iter().enumerate() {
        offsets.push(out.len());
        let _infallible = writeln!(out, "{} 0 obj\n{object}\nendobj", index + 1);
    }
    let table = out.len();
    // Every entry is 20 bytes, its line end of two included.
    let _infallible = writeln!(out, "xref\n0 {}\n0000000000 65535 f ", objects.len() + 1);
    for offset in offsets {
        let _infallible = writeln!(out, "{offset:010} 00000 n ");
    }
    let _infallible = writeln!(
        out,
        "trailer\n<< /Size {} /Root 1 0 R /Info 6 0 R >>\nstartxref\n{table}\n%%EOF",
        objects.len() + 1
    );
    out.into_bytes()
}

/// A literal string: ASCII, with what would end it escaped.
fn escaped(text: &str) -> String {
    text.chars()
        .flat_map(|c| match c {
            '(' | ')' | '\\' => vec!['\\', c],
            ' '..='~' => vec![c],
            _ => vec!['?'],
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_of_the_table_points_at_its_object() {
        let pdf = String::from_utf8(referral_letter("2026-03-01")).unwrap();
        assert!(pdf.starts_with("%PDF-1.4\n") && pdf.ends_with("%%EOF\n"));
        let start: usize = pdf
            .rsplit("startxref\n")
            .next()
            .unwrap()
            .lines()
            .next()
            .unwrap()
            .parse()
            .unwrap();
        assert!(pdf[start..].starts_with("xref\n0 7\n"));
        let entries: Vec<&str> = pdf[start..].lines().skip(2).take(7).collect();
        for (number, entry) in entries.iter().enumerate() {
            assert_eq!(
                entry.len(),
                19,
                "an entry is 20 bytes with its line feed: {entry:?}"
            );
            if number > 0 {
                let offset: usize = entry[..10].parse().unwrap();
                assert!(
                    pdf[offset..].starts_with(&format!("{number} 0 obj\n")),
                    "object {number}"
                );
            }
        }
    }

    #[test]
    fn the_stream_is_as_long_as_it_says() {
        let pdf = String::from_utf8(referral_letter("2026-03-01")).unwrap();
        let length: usize = pdf
            .split("/Length ")
            .nth(1)
            .unwrap()
            .split(' ')
            .next()
            .unwrap()
            .parse()
            .unwrap();
        let stream = pdf.split("stream\n").nth(1).unwrap();
        assert!(stream[length..].starts_with("endstream") || &stream[length - 3..length] == "ET\n");
        assert_eq!(&stream[length - 3..length], "ET\n");
    }

    #[test]
    fn text_can_not_break_out_of_its_string() {
        assert_eq!(escaped("a) Tj (b\\"), "a\\) Tj \\(b\\\\");
        assert_eq!(escaped("naïve\n"), "na?ve?");
    }
}

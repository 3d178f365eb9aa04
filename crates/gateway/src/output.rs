//! How commands print: a table for people, JSON for programs.

use std::io::{self, IsTerminal, Write};

use serde::Serialize;

/// `--output`
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// Aligned columns.
    Table,
    /// One JSON document.
    Json,
}

/// Prints `rows` under `headings`, or `document` as JSON.
pub(crate) fn print(
    format: Format,
    headings: &[&str],
    rows: &[Vec<String>],
    document: &impl Serialize,
) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match format {
        Format::Json => {
            serde_json::to_writer_pretty(&mut out, document)?;
            writeln!(out)?;
        }
        Format::Table => {
            let bold = io::stdout().is_terminal();
            write!(out, "{}", table(headings, rows, bold))?;
        }
    }
    Ok(())
}

/// Prints text as it is. A reader that has gone away (`| head`) is no error of ours.
pub(crate) fn text(text: &str) -> anyhow::Result<()> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(e.into()),
        _ => Ok(()),
    }
}

fn table(headings: &[&str], rows: &[Vec<String>], bold: bool) -> String {
    let width = |column: usize| {
        let cells = rows
            .iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count());
        cells
            .chain([headings[column].chars().count()])
            .max()
            .unwrap_or_default()
    };
    let widths: Vec<usize> = (0..headings.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded: Vec<String> = cells
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        padded.join("  ").trim_end().to_owned()
    };
    let head = line(&mut headings.iter().copied());
    let mut text = if bold {
        format!("\x1b[1m{head}\x1b[0m\n")
    } else {
        format!("{head}\n")
    };
    for row in rows {
        text.push_str(&line(&mut row.iter().map(String::as_str)));
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = vec![
            vec!["vol-1".into(), "8".into()],
            vec!["v".into(), "16384".into()],
        ];
        assert_eq!(
            table(&["VOLUME", "GIB"], &rows, false),
            "VOLUME  GIB\nvol-1   8\nv       16384\n"
        );
    }
}

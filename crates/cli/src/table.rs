//! Aligned tables.
//!
//! Owns the widths. Colour is added after the alignment, so that it costs no columns.

use crate::term::{Colour, Style};

/// A cell.
#[derive(Clone, Debug, Default)]
pub struct Cell {
    text: String,
    colour: Option<Colour>,
    right: bool,
}

impl Cell {
    /// Text, to the left.
    pub fn text(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            ..Self::default()
        }
    }

    /// A number, to the right.
    pub fn number(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            right: true,
            ..Self::default()
        }
    }

    /// The same in colour.
    #[must_use]
    pub fn colour(self, colour: Colour) -> Self {
        Self {
            colour: Some(colour),
            ..self
        }
    }
}

/// A table under construction.
#[derive(Clone, Debug)]
pub struct Table {
    header: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// A table with these headings.
    pub fn new(header: &[&'static str]) -> Self {
        Self {
            header: header.to_vec(),
            rows: Vec::new(),
        }
    }

    /// Adds a row, with a cell for each heading.
    pub fn row(&mut self, cells: Vec<Cell>) {
        debug_assert_eq!(cells.len(), self.header.len());
        self.rows.push(cells);
    }

    /// Draws it, with a line feed after each row.
    pub fn draw(&self, style: Style) -> String {
        let length = |text: &str| text.chars().count();
        let mut widths: Vec<usize> = self.header.iter().map(|title| length(title)).collect();
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(length(&cell.text));
            }
        }
        let right = |column: usize| self.rows.first().is_some_and(|row| row[column].right);
        let header: Vec<Cell> = self
            .header
            .iter()
            .enumerate()
            .map(|(column, title)| Cell {
                text: (*title).to_owned(),
                colour: Some(Colour::Strong),
                right: right(column),
            })
            .collect();
        let mut drawn = String::new();
        for row in std::iter::once(&header).chain(&self.rows) {
            let mut line = String::new();
            for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
                let last = column + 1 == row.len();
                let padding = " ".repeat(width - length(&cell.text));
                let text = match cell.colour {
                    Some(colour) => style.paint(colour, &cell.text),
                    None => cell.text.clone(),
                };
                match (cell.right, last) {
                    (true, _) => line += &(padding + &text),
                    (false, true) => line += &text,
                    (false, false) => line += &(text + &padding),
                }
                if !last {
                    line += "  ";
                }
            }
            drawn += line.trim_end();
            drawn.push('\n');
        }
        drawn
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_by_characters() {
        let mut table = Table::new(&["NAME", "SIZE", "NOTE"]);
        table.row(vec![
            Cell::text("é"),
            Cell::number("1"),
            Cell::text("first"),
        ]);
        table.row(vec![
            Cell::text("longer").colour(Colour::Good),
            Cell::number("10000"),
            Cell::text(""),
        ]);
        assert_eq!(
            table.draw(Style::PLAIN),
            "NAME     SIZE  NOTE\né           1  first\nlonger  10000\n"
        );
    }

    #[test]
    fn empty_table_has_its_headings() {
        assert_eq!(Table::new(&["A", "B"]).draw(Style::PLAIN), "A  B\n");
    }
}

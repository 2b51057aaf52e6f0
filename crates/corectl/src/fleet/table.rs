//! Tables as Go's tabwriter lays them out with tabs for padding: every column but the last ends at a multiple
//! of eight, at least one character after its widest cell.

const TAB: usize = 8;

pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        let widest = cells.map(|cell| cell.chars().count()).max().unwrap_or(0);
        (widest + 1).div_ceil(TAB) * TAB
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        for (column, cell) in row.iter().enumerate() {
            text.push_str(cell);
            if column + 1 < row.len() {
                let missing = widths[column] - cell.chars().count();
                text.extend(std::iter::repeat_n('\t', missing.div_ceil(TAB)));
            }
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_end_at_tabs() {
        let check = |rows: &[&[&str]], expected: &str| {
            let rows: Vec<Vec<String>> =
                rows.iter().map(|row| row.iter().map(|cell| cell.to_string()).collect()).collect();
            assert_eq!(table(&rows), expected);
        };
        check(&[], "");
        check(&[&["UNIT", "MACHINE", "SUB"]], "UNIT\tMACHINE\tSUB\n");
        check(&[&["MACHINE", "IP"], &["86162747...", "-"]], "MACHINE\t\tIP\n86162747...\t-\n");
        check(&[&["1234567", "x"], &["", "y"]], "1234567\tx\n\ty\n");
        check(&[&["12345678", "x"], &["", "y"]], "12345678\tx\n\t\ty\n");
    }
}

//! Help in the layout that fleet's had.

use super::Name;
use super::spec::{COMMANDS, Command, Flag, GLOBAL, Kind};

pub fn of(name: Name, command: Option<&Command>) -> String {
    let program = name.as_str();
    match command {
        None => {
            let mut text = format!(
                "NAME:\n\t{program} - start and find systemd units on the machines of a cluster\n\n\
                 USAGE:\n\t{program}\n\nVERSION:\n\t{}\n\nCOMMANDS:\n",
                env!("CARGO_PKG_VERSION")
            );
            for command in COMMANDS {
                let tabs = if command.name.len() < 8 { "\t\t" } else { "\t" };
                text.push_str(&format!("\t{}{tabs}{}\n", command.name, command.what));
            }
            text.push_str("\nOPTIONS:\n");
            text.push_str(&flags(GLOBAL));
            text
        }
        Some(command) => {
            let mut text = format!(
                "NAME:\n\t{} - {}\n\nUSAGE:\n\t{program} {} {}\n",
                command.name, command.what, command.name, command.usage
            );
            if !command.more.is_empty() {
                text.push_str(&format!("\nDESCRIPTION:\n\t{}\n", command.more));
            }
            if !command.flags.is_empty() {
                text.push_str("\nOPTIONS:\n");
                text.push_str(&flags(command.flags));
            }
            text.push_str("\nGLOBAL OPTIONS:\n");
            text.push_str(&flags(GLOBAL));
            text
        }
    }
}

fn flags(flags: &[Flag]) -> String {
    let left = |flag: &Flag| {
        let kind = match flag.kind {
            Kind::Bool => "",
            Kind::Text => " string",
            Kind::Int => " int",
            Kind::Float => " float",
        };
        let short = flag.short.map_or("    ".into(), |short| format!("-{short}, "));
        format!("  {short}--{}{kind}", flag.name)
    };
    let width = flags.iter().map(|flag| left(flag).len()).max().unwrap_or(0);
    let line = |flag: &Flag| {
        let default = match (flag.kind, flag.default) {
            (_, "" | "false" | "0") => String::new(),
            (Kind::Text, default) => format!(" (default {default:?})"),
            (_, default) => format!(" (default {default})"),
        };
        format!("{:width$}   {}{default}\n", left(flag), flag.what)
    };
    flags.iter().map(line).collect()
}

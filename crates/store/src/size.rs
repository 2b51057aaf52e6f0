//! How large a proposal may be, for stores whose own encoding does not say it better.

use cluster::Command;

/// The largest proposal: a batch of several thousand ordinary unit files.
pub const PROPOSAL_BYTES_MAX: usize = 8 << 20;
/// Whatever is neither a unit file nor a key is small.
const OTHERS_BYTES: usize = 256;

/// About how many bytes the commands take.
pub fn proposal_bytes(commands: &[Command]) -> usize {
    let bytes = |command: &Command| match command {
        Command::SetUnit { file: Some(file), .. } => OTHERS_BYTES + file.text().len(),
        Command::Keys { change, .. } => OTHERS_BYTES + change.bytes(),
        _ => OTHERS_BYTES,
    };
    commands.iter().map(bytes).sum()
}

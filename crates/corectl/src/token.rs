//! `token`: what lets machines into the cluster.

use std::time::{SystemTime, UNIX_EPOCH};

use api::Client;
use api::membership::{TokenView, TokenWish};

use crate::cli::{self, Format, TokenCommand};
use crate::{Exit, output};

const COLUMNS: [&str; 5] = ["name", "made", "ends", "uses", "used by"];

pub async fn run(client: &Client, command: &TokenCommand, format: Format) -> anyhow::Result<Exit> {
    match command {
        TokenCommand::Create(wish) => create(client, &asked(wish), format).await?,
        TokenCommand::List => list(client, format).await?,
        TokenCommand::Revoke { names } => {
            for name in names {
                client.revoke_token(name).await?;
                output::line(&format!("token {name}: lets nobody in any more"));
            }
        }
        TokenCommand::Rotate(wish) => {
            for token in client.tokens().await?.tokens {
                client.revoke_token(&token.name).await?;
            }
            create(client, &asked(wish), format).await?;
        }
    }
    Ok(Exit::Done)
}

fn asked(wish: &cli::TokenWish) -> TokenWish {
    TokenWish { ttl: wish.ttl.0.map(|ttl| ttl.as_secs()), uses: wish.uses }
}

/// Prints the one command that a new machine needs.
pub async fn create(client: &Client, wish: &TokenWish, format: Format) -> anyhow::Result<()> {
    let token = client.create_token(wish).await?;
    if format == Format::Json {
        return output::json(&token);
    }
    let within = wish.ttl.map(|ttl| format!(" within {}", span(ttl))).unwrap_or_default();
    let who = match wish.uses {
        Some(1) => "one machine".into(),
        Some(uses) => format!("up to {uses} machines"),
        None => "machines".into(),
    };
    output::line(&format!("To let {who} into the cluster, run there{within}:"));
    output::line("");
    let (host, port) = token.address.rsplit_once(':').unwrap_or((&token.address, ""));
    let host = if host == "0.0.0.0" || host == "[::]" { "ADDRESS-OF-THIS-MACHINE" } else { host };
    output::line(&format!("    corectl cluster join {} {host}:{port}", token.token));
    output::line("");
    Ok(())
}

async fn list(client: &Client, format: Format) -> anyhow::Result<()> {
    let tokens = client.tokens().await?;
    if format == Format::Json {
        return output::json(&tokens);
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let rows: Vec<Vec<String>> = tokens.tokens.iter().map(|token| row(token, now)).collect();
    output::text(&output::table(Some(output::header(&COLUMNS)), &rows));
    Ok(())
}

fn row(token: &TokenView, now: u64) -> Vec<String> {
    let ends = match token.expires_at {
        None => "never".into(),
        Some(end) if end <= now => "ended".into(),
        Some(end) => format!("in {}", span(end - now)),
    };
    let uses = match token.uses_left {
        None => "any".into(),
        Some(left) => format!("{left} left"),
    };
    let made = format!("{} ago", span(now.saturating_sub(token.created_at)));
    vec![token.name.clone(), made, ends, uses, format!("{} machines", token.used_by.len())]
}

/// To the unit that says enough.
pub fn span(seconds: u64) -> String {
    match seconds {
        ..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_short() {
        for (seconds, expected) in
            [(0, "0 s"), (119, "119 s"), (3600, "60 min"), (86_400, "24 h"), (604_800, "7 days")]
        {
            assert_eq!(span(seconds), expected);
        }
    }

    #[test]
    fn a_row_tells_when_it_ends() {
        let token = TokenView {
            name: "t1".into(),
            created_at: 1000,
            expires_at: Some(4600),
            uses_left: Some(2),
            used_by: Vec::new(),
        };
        assert_eq!(row(&token, 1060), ["t1", "60 s ago", "in 59 min", "2 left", "0 machines"]);
        assert_eq!(row(&token, 4600)[2], "ended");
        let endless = TokenView { expires_at: None, uses_left: None, ..token };
        assert_eq!(row(&endless, 1060)[2..4], ["never", "any"]);
    }
}

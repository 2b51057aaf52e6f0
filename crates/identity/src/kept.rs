//! What a machine keeps of a change of the cluster's secret, from its beginning until the machine's
//! configuration has the new one: which secrets count, and what the cluster's record asks of it next.

use std::fmt;

use cluster::{Cluster, MachineId, RotationPhase};
use serde::{Deserialize, Serialize};

use crate::authority::{Authority, IssueError};
use crate::secret::{Secret, SecretError, hex, unhex};

/// How far this machine is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeptPhase {
    /// It takes certificates of either authority, and shows the old one's.
    Trust,
    /// It takes those of either, and shows the new one's.
    Issue,
    /// Only the new one is left.
    Done,
}

/// Written down before it is acted on. Worth as much as the secrets in it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kept {
    /// As in the cluster's record.
    pub number: u64,
    pub phase: KeptPhase,
    /// In hexadecimal, like `new`.
    pub old: String,
    pub new: String,
    /// Digests of the authorities of secrets that were replaced before `old`: a configuration may still have
    /// one of them.
    pub former: Vec<String>,
}

/// The secrets that count now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Secrets {
    /// This machine's certificates follow from it.
    pub issuing: Secret,
    /// Certificates that follow from it are taken, too.
    pub also: Option<Secret>,
    /// What the configuration has is outdated.
    pub is_outdated: bool,
}

/// What a machine has to do for the change to go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Move {
    Nothing,
    /// Write that down, and act on it.
    Take(Kept),
    /// Tell the cluster that it is there.
    Confirm {
        number: u64,
        phase: RotationPhase,
    },
    /// The change is over: the new secret is the only one.
    End,
    /// The change was given up: the old one is.
    GiveUp,
}

/// Why a machine cannot take part in a change.
#[derive(Debug, thiserror::Error)]
pub enum KeptError {
    #[error("cannot read the cluster's new secret")]
    Secret(#[from] SecretError),
    #[error("the cluster's new secret is not the one that was announced")]
    Another,
    #[error(transparent)]
    Issue(#[from] IssueError),
}

impl Kept {
    fn secret(text: &str) -> Result<Secret, SecretError> {
        Secret::new(&unhex(text).ok_or(SecretError::Unsealable)?)
    }

    pub fn new_secret(&self) -> Result<Secret, SecretError> {
        Kept::secret(&self.new)
    }

    fn secrets(&self, base: &Secret) -> Result<Option<Secrets>, KeptError> {
        let (old, new) = (Kept::secret(&self.old)?, self.new_secret()?);
        let digest = Authority::of(base)?.digest();
        if *base != old && *base != new && !self.former.contains(&digest) {
            return Ok(None);
        }
        let (issuing, also) = match self.phase {
            KeptPhase::Trust => (old, Some(new)),
            KeptPhase::Issue => (new, Some(old)),
            KeptPhase::Done => (new, None),
        };
        let is_outdated = self.phase == KeptPhase::Done && issuing != *base;
        Ok(Some(Secrets { issuing, also, is_outdated }))
    }
}

impl Secrets {
    /// `base` is the secret of the configuration. What was kept of a change from or to another secret counts
    /// for nothing: the administrator has decided otherwise.
    pub fn of(base: &Secret, kept: Option<&Kept>) -> Result<Secrets, KeptError> {
        let changed = kept.map(|kept| kept.secrets(base)).transpose()?.flatten();
        Ok(changed.unwrap_or_else(|| Secrets { issuing: base.clone(), also: None, is_outdated: false }))
    }
}

/// What this machine has to do next, as the cluster's record says.
pub fn next_move(
    base: &Secret,
    kept: Option<&Kept>,
    cluster: &Cluster,
    machine: &MachineId,
) -> Result<Move, KeptError> {
    let Some(rotation) = &cluster.rotation else {
        return Ok(match kept {
            Some(kept) if kept.phase < KeptPhase::Done && kept.number <= cluster.rotations => {
                let new = Authority::of(&kept.new_secret()?)?.digest();
                if cluster.authority.as_ref() == Some(&new) { Move::End } else { Move::GiveUp }
            }
            _ => Move::Nothing,
        });
    };
    let (number, phase) = (rotation.number, rotation.phase);
    let wanted = match phase {
        RotationPhase::Trust => KeptPhase::Trust,
        RotationPhase::Issue => KeptPhase::Issue,
    };
    let confirm = match rotation.confirmed.contains(machine) {
        true => Move::Nothing,
        false => Move::Confirm { number, phase },
    };
    if let Some(kept) = kept.filter(|kept| kept.number == number && kept.phase < KeptPhase::Done) {
        return Ok(match kept.phase < wanted {
            true => Move::Take(Kept { phase: wanted, ..kept.clone() }),
            false => confirm,
        });
    }
    let now = Secrets::of(base, kept)?.issuing;
    let digest = Authority::of(&now)?.digest();
    if digest == rotation.authority {
        return Ok(confirm);
    }
    let new = now.open(&rotation.sealed, &rotation.authority)?;
    if Authority::of(&new)?.digest() != rotation.authority {
        return Err(KeptError::Another);
    }
    let mut former = kept.map(|kept| kept.former.clone()).unwrap_or_default();
    if *base != now {
        former.push(Authority::of(base)?.digest());
    }
    let (old, new) = (hex(now.expose()), hex(new.expose()));
    Ok(Move::Take(Kept { number, phase: wanted, old, new, former }))
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Kept {{ number: {}, phase: {:?}, .. }}", self.number, self.phase)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use cluster::Rotation;

    use super::*;

    fn secret(byte: u8) -> Secret {
        Secret::new(&[byte; 40]).unwrap()
    }

    fn digest(byte: u8) -> String {
        Authority::of(&secret(byte)).unwrap().digest()
    }

    fn rotating(number: u64, phase: RotationPhase, from: u8, to: u8) -> Cluster {
        let sealed = secret(from).seal(&secret(to), &digest(to)).unwrap();
        let rotation = Rotation { number, phase, authority: digest(to), sealed, confirmed: BTreeSet::new() };
        Cluster { rotations: number - 1, rotation: Some(rotation), ..Cluster::default() }
    }

    fn ended(rotations: u64, authority: Option<u8>) -> Cluster {
        Cluster { rotations, authority: authority.map(digest), ..Cluster::default() }
    }

    /// Does what is asked until there is nothing left to write down.
    fn follow(base: &Secret, kept: &mut Option<Kept>, cluster: &Cluster) -> Move {
        let me = MachineId::new("m1").unwrap();
        loop {
            match next_move(base, kept.as_ref(), cluster, &me).unwrap() {
                Move::Take(next) => {
                    assert!(kept.as_ref() != Some(&next));
                    *kept = Some(next);
                }
                other => return other,
            }
        }
    }

    #[test]
    fn a_machine_goes_through_the_phases_once() {
        use RotationPhase::{Issue, Trust};
        let base = secret(b'a');
        let secrets = |kept: &Option<Kept>| Secrets::of(&base, kept.as_ref()).unwrap();
        let mut kept = None;
        assert_eq!(follow(&base, &mut kept, &ended(0, None)), Move::Nothing);
        let mut cluster = rotating(1, Trust, b'a', b'b');
        assert_eq!(follow(&base, &mut kept, &cluster), Move::Confirm { number: 1, phase: Trust });
        assert_eq!(secrets(&kept).issuing, secret(b'a'));
        assert_eq!(secrets(&kept).also, Some(secret(b'b')));
        let confirmed = &mut cluster.rotation.as_mut().unwrap().confirmed;
        confirmed.insert(MachineId::new("m1").unwrap());
        assert_eq!(follow(&base, &mut kept, &cluster), Move::Nothing);
        let issue = rotating(1, Issue, b'a', b'b');
        assert_eq!(follow(&base, &mut kept, &issue), Move::Confirm { number: 1, phase: Issue });
        assert_eq!(secrets(&kept).issuing, secret(b'b'));
        assert_eq!(secrets(&kept).also, Some(secret(b'a')));
        // Started anew, it has applied less of the log than before: that proves nothing.
        assert_eq!(follow(&base, &mut kept, &ended(0, None)), Move::Nothing);
        assert_eq!(follow(&base, &mut kept, &ended(1, Some(b'b'))), Move::End);
    }

    #[test]
    fn a_machine_that_comes_late_catches_up() {
        let mut kept = None;
        let issue = rotating(3, RotationPhase::Issue, b'a', b'b');
        let there = Move::Confirm { number: 3, phase: RotationPhase::Issue };
        assert_eq!(follow(&secret(b'a'), &mut kept, &issue), there);
        assert_eq!(kept.unwrap().phase, KeptPhase::Issue);
        // It was told the new secret as it joined.
        assert_eq!(follow(&secret(b'b'), &mut None, &issue), there);
        let me = MachineId::new("m1").unwrap();
        let stranger = next_move(&secret(b'x'), None, &issue, &me);
        assert!(matches!(stranger, Err(KeptError::Secret(SecretError::Unsealable))), "{stranger:?}");
    }

    #[test]
    fn a_change_that_was_given_up_leaves_nothing() {
        let (base, mut kept) = (secret(b'a'), None);
        follow(&base, &mut kept, &rotating(1, RotationPhase::Trust, b'a', b'b'));
        assert_eq!(follow(&base, &mut kept, &ended(1, None)), Move::GiveUp);
        assert_eq!(follow(&base, &mut None, &ended(1, None)), Move::Nothing);
        // The next one may come before the end of this one was seen.
        follow(&base, &mut kept, &rotating(2, RotationPhase::Trust, b'a', b'c'));
        let kept = kept.unwrap();
        assert_eq!((kept.number, kept.new_secret().unwrap()), (2, secret(b'c')));
    }

    #[test]
    fn a_configuration_may_be_outdated() {
        let base = secret(b'a');
        let mut kept = None;
        follow(&base, &mut kept, &rotating(1, RotationPhase::Issue, b'a', b'b'));
        let done = |kept: &mut Option<Kept>| kept.as_mut().unwrap().phase = KeptPhase::Done;
        done(&mut kept);
        let secrets = |base: u8, kept: &Option<Kept>| Secrets::of(&secret(base), kept.as_ref()).unwrap();
        assert_eq!(secrets(b'a', &kept), Secrets { issuing: secret(b'b'), also: None, is_outdated: true });
        assert_eq!(secrets(b'b', &kept), Secrets { issuing: secret(b'b'), also: None, is_outdated: false });
        assert_eq!(secrets(b'x', &kept), Secrets { issuing: secret(b'x'), also: None, is_outdated: false });
        assert_eq!(follow(&base, &mut kept, &ended(1, Some(b'b'))), Move::Nothing);
        // And once more, with the first one still in the file.
        follow(&base, &mut kept, &rotating(2, RotationPhase::Issue, b'b', b'c'));
        assert_eq!(secrets(b'a', &kept).issuing, secret(b'c'));
        done(&mut kept);
        for base in [b'a', b'b', b'c'] {
            assert_eq!(secrets(base, &kept).issuing, secret(b'c'));
        }
    }
}

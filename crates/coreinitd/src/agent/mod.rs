//! The agent: makes this machine as the cluster wants it, and tells the cluster what it sees.

//! The systemd room: everything that is said to systemd is said here.

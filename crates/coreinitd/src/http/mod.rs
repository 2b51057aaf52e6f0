//! The HTTP room: fleet's API and our own over the store.

//! The metadata role.

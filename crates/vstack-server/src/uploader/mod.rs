//! The uploader role.

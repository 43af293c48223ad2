//! From the guard's permit to the application, and the answer back.

pub mod fast_path;
pub mod framing;
pub mod pool;
pub mod transform;
pub mod upstream;

//! The support parts do what the other tests rely on. None of these needs a working `doorward serve`.

mod idp;
mod process;
mod redis;
mod upstream;

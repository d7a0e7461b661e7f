//! What only guests in virtual machines have.

mod devices;
mod exceptions;
mod hostile;
mod lifecycle;
mod ring;

//! What only guests that are processes have.

mod confinement;
mod lifecycle;

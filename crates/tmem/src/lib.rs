//! tmem engine.

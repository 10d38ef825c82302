//! System calls of tmem, each behind a small safe face.

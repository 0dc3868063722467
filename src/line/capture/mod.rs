//! Cameras through GStreamer. The only room that imports it.

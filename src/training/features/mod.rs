//! Backbone features of the training pictures, computed once.

"""A trained model as C99 for microcontrollers: written, compiled and measured."""

"""The state of things at one moment, as plain values in a file that needs no pickle."""

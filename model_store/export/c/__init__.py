"""Models as C: one C99 file without allocation, and a program that checks it on the golden rows."""

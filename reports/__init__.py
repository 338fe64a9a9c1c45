"""What is said: compare, diagnose, judge, render."""

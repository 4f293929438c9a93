"""What to practise next: learning progress from measured successes, and the choice among goals."""

"""Learning from experience: rollouts, play, practice."""

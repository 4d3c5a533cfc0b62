"""The depth doctor: finds depth that is unusable, and says what would mend it."""

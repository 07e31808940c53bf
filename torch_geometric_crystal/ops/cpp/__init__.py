"""Operations compiled for this CPU."""

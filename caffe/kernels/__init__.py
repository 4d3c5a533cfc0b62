"""Operations that plans and layers compute with."""

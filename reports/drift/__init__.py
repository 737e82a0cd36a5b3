"""The page of `drift`: angle, norm ratio and routing over depth, local against accumulated, the answer in words."""

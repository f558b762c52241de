"""Programs that stand in for a vendor's controller: they speak its wire protocol, with motion behind it."""

"""For people: what is made of pictures and films, drawn and written down."""

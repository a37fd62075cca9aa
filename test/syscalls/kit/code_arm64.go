package kit

// ReturnCode is a function that returns at once.
var ReturnCode = []byte{0xc0, 0x03, 0x5f, 0xd6}

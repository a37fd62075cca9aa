package kit

// ReturnCode is a function that returns at once.
var ReturnCode = []byte{0xc3}

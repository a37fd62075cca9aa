// Package stack holds what the tests of stacks need in assembly: code that runs on a stack of the test's choice.
package stack

// params are the arguments of the functions below, in memory that is shared with forked children: [0] the end of the
// stack, [1] how many words to push, [2] the identifier of the thread, which the kernel sets to 0 when it ends.
var params *[8]uintptr

// pushDown pushes words on the stack that ends at params[0], on the caller's thread, and returns. It is called by
// Exec of a kit.Actor.
func pushDown()

// loadOn loads a word from params[3] while the stack pointer is params[0], and returns.
func loadOn()

// startThread starts a thread on that stack, which pushes words and exits.
func startThread()

// Addresses of the above.
func pushDownPC() uintptr
func loadOnPC() uintptr
func startThreadPC() uintptr

// These tests are about fork(2) and copy-on-write: what a child has of its parent's memory, and that neither
// sees what the other writes to what is private, whoever writes meanwhile.
package fork

import (
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"sentrymm/test/syscalls/kit"
)

func TestMain(m *testing.M) { kit.Main(m) }

const moving = unix.MREMAP_MAYMOVE | unix.MREMAP_FIXED

// contents is what an actor finds at the first bytes of pages [i, i+n), in one line: in hexadecimal, or the
// name of the signal without its code.
func contents(a *kit.Arena, actor *kit.Actor, i, n int) string {
	found := a.Bytes(actor, i, n)
	for k, c := range found {
		found[k], _, _ = strings.Cut(c, "/")
	}
	return strings.Join(found, " ")
}

// word is the first eight bytes of a page, for atomic access.
func word(a *kit.Arena, page int) *uint64 {
	return (*uint64)(unsafe.Pointer(&a.Memory(page, 1)[0]))
}

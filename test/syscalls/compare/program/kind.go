package program

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// A Kind is what an argument of a step means: how it is written, and which values are worth trying.
type Kind struct {
	Name string
	// names are values, or bits if flags is set, with names of their own.
	names []named
	flags bool
	// special kinds have text of their own.
	text  func(int64) string
	parse func(string) (int64, error)
}

type named struct {
	name  string
	value int64
	// constant is how Go code of a test calls it, if it is not package unix with an upper-case name.
	constant string
}

// The kinds that are numbers of a special form.
var (
	KindAddr = &Kind{Name: "address", text: func(v int64) string { return Address(v).String() },
		parse: func(s string) (int64, error) { a, err := ParseAddress(s); return int64(a), err }}
	// KindLen is a number of bytes, written in pages. One that follows an address is the length of
	// memory there.
	KindLen = &Kind{Name: "length", text: lenText, parse: parseLen}
	// KindOffset is a number of bytes in a file, written in pages.
	KindOffset = &Kind{Name: "offset", text: lenText, parse: parseLen}
	KindNum    = &Kind{Name: "number"}
	// KindSlot is where an address that the kernel chose is remembered.
	KindSlot    = &Kind{Name: "slot", names: numbered("m", Slots)}
	KindSegment = &Kind{Name: "segment", names: numbered("s", Segments)}
	KindContext = &Kind{Name: "context", names: numbered("a", Contexts)}
)

// The kinds whose values have names.
var (
	KindActor  = &Kind{Name: "actor", names: list("main", "t1", "t2", "c1", "c2", "c3")}
	KindHandle = &Kind{Name: "file", names: append([]named{{name: "none", value: -1}},
		list("disk", "diskread", "tmpfs", "memfd", "sealed", "zero", "piperead", "pipewrite")...)}
	KindProt = &Kind{Name: "protection", flags: true, names: []named{
		{"r", unix.PROT_READ, "PROT_READ"}, {"w", unix.PROT_WRITE, "PROT_WRITE"}, {"x", unix.PROT_EXEC, "PROT_EXEC"},
		{"growsdown", unix.PROT_GROWSDOWN, "PROT_GROWSDOWN"},
	}}
	KindMap = &Kind{Name: "map flags", flags: true, names: []named{
		// In this order: SHARED_VALIDATE has the bits of the other two.
		{"validate", unix.MAP_SHARED_VALIDATE, "MAP_SHARED_VALIDATE"},
		{"shared", unix.MAP_SHARED, "MAP_SHARED"}, {"private", unix.MAP_PRIVATE, "MAP_PRIVATE"},
		{"anon", unix.MAP_ANONYMOUS, "MAP_ANONYMOUS"}, {"fixed", unix.MAP_FIXED, "MAP_FIXED"},
		{"noreplace", unix.MAP_FIXED_NOREPLACE, "MAP_FIXED_NOREPLACE"}, {"32bit", map32Bit, "MAP_32BIT"},
		{"growsdown", unix.MAP_GROWSDOWN, "MAP_GROWSDOWN"}, {"populate", unix.MAP_POPULATE, "MAP_POPULATE"},
		{"locked", unix.MAP_LOCKED, "MAP_LOCKED"}, {"noreserve", unix.MAP_NORESERVE, "MAP_NORESERVE"},
		{"stack", unix.MAP_STACK, "MAP_STACK"}, {"nonblock", unix.MAP_NONBLOCK, "MAP_NONBLOCK"},
	}}
	KindRemap = &Kind{Name: "remap flags", flags: true, names: []named{
		{"maymove", unix.MREMAP_MAYMOVE, "MREMAP_MAYMOVE"}, {"fixed", unix.MREMAP_FIXED, "MREMAP_FIXED"},
		{"dontunmap", unix.MREMAP_DONTUNMAP, "MREMAP_DONTUNMAP"},
	}}
	KindAdvice  = &Kind{Name: "advice", names: advices()}
	KindLockAll = &Kind{Name: "mlockall flags", flags: true, names: []named{
		{"current", unix.MCL_CURRENT, "MCL_CURRENT"}, {"future", unix.MCL_FUTURE, "MCL_FUTURE"}, {"onfault", unix.MCL_ONFAULT, "MCL_ONFAULT"}}}
	KindLock2 = &Kind{Name: "mlock2 flags", flags: true, names: []named{{"onfault", unix.MLOCK_ONFAULT, "MLOCK_ONFAULT"}}}
	KindSync  = &Kind{Name: "msync flags", flags: true, names: []named{
		{"async", unix.MS_ASYNC, "MS_ASYNC"}, {"invalidate", unix.MS_INVALIDATE, "MS_INVALIDATE"}, {"sync", unix.MS_SYNC, "MS_SYNC"}}}
	KindAttach = &Kind{Name: "shmat flags", flags: true, names: []named{
		{"rdonly", shmReadOnly, "SHM_RDONLY"}, {"round", shmRound, "SHM_RND"}, {"remap", shmRemap, "0x4000"}, {"exec", shmExec, "0x8000"}}}
	KindSeal = &Kind{Name: "seals", flags: true, names: []named{
		{"seal", unix.F_SEAL_SEAL, "F_SEAL_SEAL"}, {"shrink", unix.F_SEAL_SHRINK, "F_SEAL_SHRINK"}, {"grow", unix.F_SEAL_GROW, "F_SEAL_GROW"},
		{"write", unix.F_SEAL_WRITE, "F_SEAL_WRITE"}, {"futurewrite", unix.F_SEAL_FUTURE_WRITE, "F_SEAL_FUTURE_WRITE"}}}
	KindHole = &Kind{Name: "fallocate mode", flags: true, names: []named{
		{"keepsize", unix.FALLOC_FL_KEEP_SIZE, "FALLOC_FL_KEEP_SIZE"}, {"punch", unix.FALLOC_FL_PUNCH_HOLE, "FALLOC_FL_PUNCH_HOLE"}}}
	KindLimit = &Kind{Name: "limit", names: []named{
		{"as", unix.RLIMIT_AS, "RLIMIT_AS"}, {"data", unix.RLIMIT_DATA, "RLIMIT_DATA"}, {"memlock", unix.RLIMIT_MEMLOCK, "RLIMIT_MEMLOCK"}}}
)

// Flags of shmat(2).
const (
	shmReadOnly = 0o10000
	shmRound    = 0o20000
	shmRemap    = 0o40000
	shmExec     = 0o100000
)

// map32Bit is MAP_32BIT, which x86 alone has. Elsewhere the bit means nothing.
const map32Bit = 0x40

func advices() []named {
	names := []string{"NORMAL", "RANDOM", "SEQUENTIAL", "WILLNEED", "DONTNEED", "FREE", "REMOVE", "DONTFORK", "DOFORK", "MERGEABLE", "UNMERGEABLE",
		"HUGEPAGE", "NOHUGEPAGE", "DONTDUMP", "DODUMP", "WIPEONFORK", "KEEPONFORK", "COLD", "PAGEOUT", "POPULATE_READ", "POPULATE_WRITE", "DONTNEED_LOCKED"}
	values := []int64{0, 1, 2, 3, 4, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24}
	var all []named
	for i, name := range names {
		all = append(all, named{strings.ToLower(name), values[i], "MADV_" + name})
	}
	return all
}

func list(names ...string) []named {
	var all []named
	for i, name := range names {
		all = append(all, named{name: name, value: int64(i)})
	}
	return all
}

func numbered(prefix string, n int) []named {
	var all []named
	for i := range n {
		all = append(all, named{name: fmt.Sprint(prefix, i), value: int64(i)})
	}
	return all
}

// Text is a value as programs have it. It holds no blanks.
func (k *Kind) Text(v int64) string {
	if k.text != nil {
		return k.text(v)
	}
	var words []string
	for _, n := range k.names {
		if !k.flags && n.value == v {
			return n.name
		}
		if k.flags && v&n.value == n.value {
			words = append(words, n.name)
			v &^= n.value
		}
	}
	if v != 0 && k.flags {
		words = append(words, fmt.Sprintf("%#x", v))
	}
	if len(words) == 0 {
		return fmt.Sprint(v)
	}
	return strings.Join(words, "|")
}

// Parse is the reverse of Text.
func (k *Kind) Parse(text string) (int64, error) {
	if k.parse != nil {
		return k.parse(text)
	}
	value := int64(0)
	for word := range strings.SplitSeq(text, "|") {
		i := slices.IndexFunc(k.names, func(n named) bool { return n.name == word })
		if i >= 0 {
			value |= k.names[i].value
			continue
		}
		v, err := strconv.ParseInt(word, 0, 64)
		if err != nil {
			return 0, fmt.Errorf("no %s: %q", k.Name, word)
		}
		value |= v
	}
	return value, nil
}

// lenText writes whole pages as "3p", small remainders after them as "3p+1", and all else as a number.
func lenText(v int64) string {
	pages, rest := v/PageSize, v%PageSize
	switch {
	case v < 0 || v >= 1<<40:
		return fmt.Sprintf("%#x", v)
	case rest == 0:
		return fmt.Sprintf("%dp", pages)
	}
	return fmt.Sprintf("%dp%+d", pages, rest)
}

func parseLen(text string) (int64, error) {
	before, after, paged := strings.Cut(text, "p")
	n, err := strconv.ParseInt(before, 0, 64)
	if err == nil && paged {
		n *= PageSize
		if after != "" {
			var rest int64
			rest, err = strconv.ParseInt(after, 10, 64)
			n += rest
		}
	}
	if err != nil {
		return 0, fmt.Errorf("no length: %q", text)
	}
	return n, nil
}

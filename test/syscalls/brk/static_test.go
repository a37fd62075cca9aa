//go:build !cgo

// Claims what only a program without a C library shows: that takes from the heap before main.
package brk

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"

	"sentrymm/test/syscalls/kit"
)

// A new program begins with an empty heap, which no line of maps shows.
var _ = kit.Program("brk-new", func([]string) {
	data, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	start := kit.Me.Brk(0)
	fmt.Println("shown at first:", strings.Contains(string(data), "[heap]"))
	fmt.Println("in a page:", start%uintptr(kit.PageSize) == 0)
	end := start + kit.Len(3)
	fmt.Println("grows:", kit.Me.Brk(end) == end)
	data, _ = os.ReadFile("/proc/self/maps")
	lines, err := kit.ParseMaps(data)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	for _, l := range lines {
		if l.Name == "[heap]" {
			fmt.Println("then:", l.Start == start&^0xfff, l.End == end, l.Perms)
		}
	}
})

func TestNewProgramHasAnEmptyHeap(t *testing.T) {
	out := kit.Run(t, "brk-new")
	kit.Say(t, "%q", out)
	assert.Contains(t, out, "shown at first: false\n")
	assert.Contains(t, out, "grows: true\nthen: true true rw-p\n")
}

package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"sentrymm/test/syscalls/compare/trace"
)

// agree reports whether the lines of a view agree. For mappings, Linux may show two lines where the other
// shows one: it does not merge mappings whose anonymous pages have different histories. It must not be the
// other way round.
func agree(aspect string, native, other []string) bool {
	if slices.Equal(native, other) {
		return true
	}
	if aspect != trace.Maps && aspect != trace.Smaps {
		return false
	}
	for len(native) > 0 && len(other) > 0 {
		line := native[0]
		native = native[1:]
		for line != other[0] {
			if len(native) == 0 {
				return false
			}
			joined, ok := join(line, native[0])
			if !ok {
				return false
			}
			line, native = joined, native[1:]
		}
		other = other[1:]
	}
	return len(native) == 0 && len(other) == 0
}

// join makes one line of maps of two that lie next to each other and agree in everything else.
func join(first, second string) (string, bool) {
	a, b := strings.SplitN(first, " ", 4), strings.SplitN(second, " ", 4)
	startA, endA, okA := strings.Cut(a[0], "-p")
	startB, endB, okB := strings.Cut(b[0], "-p")
	if !okA || !okB || len(a) != len(b) || "p"+endA != startB || a[1] != b[1] || !slices.Equal(a[3:], b[3:]) {
		return "", false
	}
	if len(a) == 4 {
		// The line of a file in maps: its offset goes on.
		offsetA, errA := strconv.Atoi(a[2])
		offsetB, errB := strconv.Atoi(b[2])
		from, errFrom := strconv.Atoi(strings.TrimPrefix(startA, "p"))
		to, errTo := strconv.Atoi(endA)
		if errA != nil || errB != nil || errFrom != nil || errTo != nil || offsetB-offsetA != to-from {
			return "", false
		}
	}
	return fmt.Sprintf("%s-p%s %s", startA, endB, strings.Join(a[1:], " ")), true
}

package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// stream makes events of words: "run TestA", "output TestA text", ...
func stream(t *testing.T, lines ...string) *record {
	t.Helper()
	var events strings.Builder
	for _, line := range lines {
		words := strings.SplitN(line+"  ", " ", 3)
		fmt.Fprintf(&events, `{"Action":%q,"Test":%q,"Output":%q}`+"\n", words[0], words[1], strings.TrimSuffix(words[2], "  "))
	}
	r := newRecord()
	require.NoError(t, r.read(strings.NewReader(events.String())))
	return r
}

func TestTranscriptIsWhatBeginsWithABar(t *testing.T) {
	r := stream(t, "run TestA", "output TestA === RUN   TestA\n", "output TestA     | one\n", "output TestA     | tw", "output TestA o\n",
		"output TestA     file_test.go:3: | no\n", "output TestA     | \n", "output TestA printed\n", "output TestA --- PASS: TestA (0.00s)\n", "pass TestA", "pass ")
	require.True(t, r.complete)
	a := r.byName["TestA"]
	require.Equal(t, didPass, a.outcome)
	require.Equal(t, []string{"one", "two", ""}, a.transcript)
	require.Equal(t, []string{"    file_test.go:3: | no", "printed"}, a.output.lines())
}

func TestOutputKeepsBeginningAndEnd(t *testing.T) {
	var x excerpt
	for i := range 1000 {
		x.add(fmt.Sprint(i))
	}
	lines := x.lines()
	require.Len(t, lines, 2*excerptLines+1)
	require.Equal(t, "0", lines[0])
	require.Equal(t, "... 940 lines left out ...", lines[excerptLines])
	require.Equal(t, "999", lines[2*excerptLines])
}

func TestCulpritsAreWhatRan(t *testing.T) {
	names := func(r *record) (names []string) {
		for _, c := range r.culprits() {
			names = append(names, c.name)
		}
		return names
	}
	require.Empty(t, names(stream(t, "run TestA", "pass TestA")))
	require.Equal(t, []string{"TestB/c"}, names(stream(t, "run TestA", "pass TestA", "run TestB", "run TestB/b", "fail TestB/b", "run TestB/c")))
	require.Equal(t, []string{"TestB"}, names(stream(t, "run TestB", "run TestB/b", "fail TestB/b")), "it went on after b failed")
	require.Equal(t, []string{"TestB/b"}, names(stream(t, "run TestB", "run TestB/b", "fail TestB/b", "output TestB --- FAIL: TestB (0.00s)\n")), "the panic of b ended both")
	require.Equal(t, []string{"TestC"}, names(stream(t, "run TestB", "pause TestB", "run TestC")), "B had not begun")
}

func TestSkipPatternIsExact(t *testing.T) {
	require.Equal(t, `^TestA$|^TestB$/^now$/^here_\(1\)$`, skipPattern([]string{"TestA", "TestB/now/here_(1)"}))
}

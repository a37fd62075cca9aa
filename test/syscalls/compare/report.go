package main

import (
	"fmt"
	"strings"

	"sentrymm/test/syscalls/compare/program"
	"sentrymm/test/syscalls/compare/trace"
)

// outline is a program without what often differs between two that show the same: its addresses.
func outline(p *program.Program) string {
	var b strings.Builder
	for _, s := range p.Steps {
		b.WriteString(s.Op.Name)
		for i, kind := range s.Op.Args {
			if kind == program.KindMap || kind == program.KindAdvice || kind == program.KindHandle || kind == program.KindRemap {
				b.WriteString(" " + kind.Text(s.Args[i]))
			}
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// comment turns text into comments of a program.
func comment(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		b.WriteString("# " + line)
	}
	return b.String()
}

// narrate is a program with what its steps returned natively, as far as it got.
func narrate(p *program.Program, reference []trace.Step) string {
	var b strings.Builder
	fmt.Fprintf(&b, "program %d\n", p.Seed)
	for i, s := range p.Steps {
		if i+1 < len(reference) {
			fmt.Fprintf(&b, "%4d %v: %s\n", i+1, s, reference[i+1].Result)
		} else {
			fmt.Fprintf(&b, "%4d %v\n", i+1, s)
		}
	}
	return b.String()
}

package mm

import (
	"bytes"
	"fmt"
	"go/importer"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	gvisorsync "gvisor.dev/gvisor/pkg/sync"
)

const (
	ourPath   = "sentrymm/pkg/mm"
	theirPath = "gvisor.dev/gvisor/pkg/sentry/mm"
)

// TestExportedAPIIsUpstreams compares the exported declarations of this package
// with those of the package that it stands in for: the sentry and runsc are to
// compile with either. It reads what the compiler exports, and links nothing.
func TestExportedAPIIsUpstreams(t *testing.T) {
	files := exportData(t, ourPath, theirPath)
	imp := importer.ForCompiler(token.NewFileSet(), "gc", func(path string) (io.ReadCloser, error) {
		return os.Open(files[path])
	})
	ours, theirs := exported(t, imp, ourPath), exported(t, imp, theirPath)
	var names []string
	for name := range ours {
		names = append(names, name)
	}
	for name := range theirs {
		if _, ok := ours[name]; !ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		switch our, their := ours[name], theirs[name]; {
		case our == their:
		case our == "":
			t.Errorf("%s is missing; upstream has\n\t%s", name, their)
		case their == "":
			t.Errorf("%s is exported here and not upstream:\n\t%s", name, our)
		default:
			t.Errorf("%s is\n\t%s\nand upstream's is\n\t%s", name, our, their)
		}
	}
	if len(theirs) < 100 {
		t.Errorf("only %d declarations were found upstream: this test does not look right", len(theirs))
	}
}

// exportData returns the files with the export data of the given packages and all
// that they import. The go command makes them as it does for any build.
func exportData(t *testing.T, paths ...string) map[string]string {
	t.Helper()
	args := []string{"list", "-export", "-deps", "-f", "{{.ImportPath}}\t{{.Export}}"}
	if gvisorsync.RaceEnabled {
		// Then this is what the build cache has.
		args = append(args, "-race")
	}
	cmd := exec.Command("go", append(args, paths...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v\n%s", cmd, err, stderr.String())
	}
	files := make(map[string]string)
	for line := range strings.Lines(string(out)) {
		path, file, _ := strings.Cut(strings.TrimSpace(line), "\t")
		files[path] = file
	}
	return files
}

// exported returns a description of each exported declaration of a package, and of
// each exported field and method, by its name.
func exported(t *testing.T, imp types.Importer, path string) map[string]string {
	t.Helper()
	pkg, err := imp.Import(path)
	if err != nil {
		t.Fatalf("import %s: %v", path, err)
	}
	d := describer{pkg}
	all := map[string]string{"package": pkg.Name()}
	for _, name := range pkg.Scope().Names() {
		obj := pkg.Scope().Lookup(name)
		if !obj.Exported() {
			continue
		}
		switch obj := obj.(type) {
		case *types.Const:
			all[name] = fmt.Sprintf("const %s %s = %s", name, d.typ(obj.Type()), obj.Val().ExactString())
		case *types.TypeName:
			d.typeName(obj, all)
		default:
			all[name] = fmt.Sprintf("%T %s %s", obj, name, d.typ(obj.Type()))
		}
	}
	return all
}

// describer writes types of pkg so that those of another package of the same
// contents are written alike.
type describer struct{ pkg *types.Package }

// typ writes a type.
func (d describer) typ(t types.Type) string {
	if sig, ok := t.(*types.Signature); ok {
		return d.signature(sig)
	}
	return types.TypeString(t, func(p *types.Package) string {
		if p == d.pkg {
			return "mm"
		}
		return p.Path()
	})
}

// signature writes a signature without the names of its parameters.
func (d describer) signature(sig *types.Signature) string {
	list := func(tuple *types.Tuple) string {
		var parts []string
		for v := range tuple.Variables() {
			parts = append(parts, d.typ(v.Type()))
		}
		return "(" + strings.Join(parts, ", ") + ")"
	}
	s := "func" + list(sig.Params()) + " " + list(sig.Results())
	if sig.Variadic() {
		s += " variadic"
	}
	return s
}

// typeName adds a type, its exported fields and its methods, including promoted
// ones, to all.
func (d describer) typeName(obj *types.TypeName, all map[string]string) {
	name := obj.Name()
	switch u := obj.Type().Underlying().(type) {
	case *types.Struct:
		all[name] = "struct"
		for f := range u.Fields() {
			if f.Exported() {
				all[name+"."+f.Name()] = fmt.Sprintf("field %s embedded=%t", d.typ(f.Type()), f.Embedded())
			}
		}
	default:
		all[name] = d.typ(u)
	}
	if obj.IsAlias() {
		all[name] = "alias of " + d.typ(types.Unalias(obj.Type()))
	}
	methods := types.NewMethodSet(types.NewPointer(obj.Type()))
	for m := range methods.Methods() {
		if m.Obj().Exported() {
			all[name+"."+m.Obj().Name()] = "method " + d.typ(m.Type())
		}
	}
}

// Package check reads the examples by Kubernetes' own types. It is a module of its
// own: nothing else of ovnd's needs them.
package check

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// kinds are those of the examples.
var kinds = map[string]func() any{
	"v1/Namespace":        func() any { return new(corev1.Namespace) },
	"apps/v1/StatefulSet": func() any { return new(appsv1.StatefulSet) },
	"apps/v1/Deployment":  func() any { return new(appsv1.Deployment) },
}

// Every field is one that its kind has, with a value of its type.
func TestFields(t *testing.T) {
	files, err := filepath.Glob("../*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for doc := range bytes.SplitSeq(b, []byte("\n---\n")) {
			var head struct{ APIVersion, Kind string }
			if err := yaml.Unmarshal(doc, &head); err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			object, known := kinds[head.APIVersion+"/"+head.Kind]
			if !known {
				t.Fatalf("%s: %+v is none that this test knows", file, head)
			}
			if err := yaml.UnmarshalStrict(doc, object()); err != nil {
				t.Errorf("%s: %s: %v", file, head.Kind, err)
			}
		}
	}
}

// What the API would refuse is not taken here either.
func TestStrict(t *testing.T) {
	for _, doc := range []string{
		"apiVersion: apps/v1\nkind: Deployment\nspec: {replica: 3}", "apiVersion: apps/v1\nkind: Deployment\nspec: {replicas: three}",
	} {
		if yaml.UnmarshalStrict([]byte(doc), new(appsv1.Deployment)) == nil {
			t.Errorf("taken: %s", doc)
		}
	}
}

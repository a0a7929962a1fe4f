package main

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// Objects put at once have keys of their own, and are private octet streams with the payload's bytes.
func TestObjects(t *testing.T) {
	var lock sync.Mutex
	objects := map[string]string{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		lock.Lock()
		defer lock.Unlock()
		objects[r.URL.Path] = string(body)
		if r.Method != http.MethodPut || r.Header.Get("X-Amz-Acl") != "private" || r.Header.Get("Content-Type") != "application/octet-stream" {
			t.Errorf("%s with %v", r.Method, r.Header)
		}
	}))
	defer server.Close()
	t.Setenv("AWS_ACCESS_KEY_ID", "key")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	t.Setenv("AWS_REGION", "us-east-1")
	bucket, err := openBucket(context.Background(), settings{endpoint: server.URL, bucket: "b", folder: "f", maxWorkers: 8})
	if err != nil {
		t.Fatal(err)
	}
	var puts sync.WaitGroup
	for range 200 {
		puts.Go(func() {
			if err := bucket.Put(context.Background(), Raw{json.RawMessage(`{"n":1}`)}); err != nil {
				t.Error(err)
			}
		})
	}
	puts.Wait()
	if len(objects) != 200 {
		t.Errorf("%d objects of 200", len(objects))
	}
	for key, body := range objects {
		if !strings.HasPrefix(key, "/b/f/") || body != `{"n":1}` {
			t.Errorf("%s holds %s", key, body)
		}
	}
}

// Two objects of one moment have two keys.
func TestKeys(t *testing.T) {
	bucket, now := &Bucket{folder: "f"}, time.Unix(1, 5)
	if first, second := bucket.key(now), bucket.key(now); first != "f/1000000005-1" || second != "f/1000000005-2" {
		t.Errorf("%s and %s", first, second)
	}
}

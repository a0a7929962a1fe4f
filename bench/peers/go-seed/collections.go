package main

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
)

// Payload is one element of a collection's data: what a worker stores.
type Payload interface {
	// Body returns the object's bytes.
	Body() ([]byte, error)
}

// Decoded is a payload in the form of the original: decoded with its collection, and encoded again for its object.
// The original's type is redacted there; a map takes any telemetry.
type Decoded map[string]any

// Body encodes the payload, as the original does with an encoder over a buffer (hence a line feed at the end).
func (p Decoded) Body() ([]byte, error) {
	var buffer bytes.Buffer
	if err := json.NewEncoder(&buffer).Encode(p); err != nil {
		return nil, err
	}
	return buffer.Bytes(), nil
}

// Raw is a payload kept as its bytes: what the design could have done for fidelity and for less work.
type Raw struct{ json.RawMessage }

// Body returns the bytes as they came.
func (p Raw) Body() ([]byte, error) { return p.RawMessage, nil }

type collection[P Payload] struct {
	Version string `json:"version"`
	Token   string `json:"token"`
	Data    []P    `json:"data"`
}

// collections answers 200 as soon as every payload of the collection is queued. A full queue makes it wait.
func collections[P Payload](queue chan<- Job, maxBodyBytes int64) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost {
			w.WriteHeader(http.StatusMethodNotAllowed)
			return
		}
		var content collection[P]
		if err := json.NewDecoder(io.LimitReader(r.Body, maxBodyBytes)).Decode(&content); err != nil {
			w.Header().Set("Content-Type", "application/json; charset=UTF-8")
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		for _, payload := range content.Data {
			queue <- Job{Payload: payload}
		}
		w.WriteHeader(http.StatusOK)
	})
}

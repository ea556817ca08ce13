// gunzip.go LAYER...: prints the SHA-256 of what compress/gzip decodes of each.
package main

import (
	"compress/gzip"
	"crypto/sha256"
	"fmt"
	"io"
	"log"
	"os"
)

func main() {
	for _, layer := range os.Args[1:] {
		file, err := os.Open(layer)
		if err != nil {
			log.Fatal(err)
		}
		reader, err := gzip.NewReader(file)
		if err != nil {
			log.Fatal(layer, err)
		}
		digest := sha256.New()
		if _, err := io.Copy(digest, reader); err != nil {
			log.Fatal(layer, err)
		}
		fmt.Printf("%x\n", digest.Sum(nil))
	}
}

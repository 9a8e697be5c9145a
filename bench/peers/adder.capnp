@0xc3a1f4d27b905e86;

interface Adder {
  add @0 (a :Int64, b :Int64) -> (sum :Int64);
}

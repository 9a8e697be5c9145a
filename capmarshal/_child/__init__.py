"""Child processes that hold nothing but what their parent gave them."""

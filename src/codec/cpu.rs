//! Which instructions the inner loops may use, found at run time.

/// The inner loops are compiled twice; both give the same bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cpu {
    /// Whatever the target guarantees.
    Portable,
    /// x86-64 with BMI1, BMI2 and LZCNT: shifts by a variable count without flags.
    #[cfg(target_arch = "x86_64")]
    Bmi2,
}

impl Cpu {
    /// The best that this machine has.
    pub(super) fn detect() -> Cpu {
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("bmi1")
            && std::arch::is_x86_feature_detected!("bmi2")
            && std::arch::is_x86_feature_detected!("lzcnt")
        {
            return Cpu::Bmi2;
        }
        Cpu::Portable
    }
}

impl Default for Cpu {
    fn default() -> Cpu {
        Cpu::detect()
    }
}

/// Defines a function twice over one `#[inline(always)]` body: portable, and for BMI2.
///
/// The first argument of the result selects the variant.
macro_rules! multiversion {
    ($(#[$doc:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? = $body:expr) => {
        $(#[$doc])*
        $vis fn $name(cpu: $crate::codec::cpu::Cpu, $($arg: $ty),*) $(-> $ret)? {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "bmi1,bmi2,lzcnt")]
            fn bmi2($($arg: $ty),*) $(-> $ret)? {
                $body($($arg),*)
            }
            match cpu {
                $crate::codec::cpu::Cpu::Portable => $body($($arg),*),
                // SAFETY: this variant of `Cpu` is made only where the three features were found.
                #[cfg(target_arch = "x86_64")]
                #[allow(unsafe_code)]
                $crate::codec::cpu::Cpu::Bmi2 => unsafe { bmi2($($arg),*) },
            }
        }
    };
}
pub(super) use multiversion;
